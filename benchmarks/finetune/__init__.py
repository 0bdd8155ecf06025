"""Is the model trained on the picks better? The embedded model finetuned on what each way of selecting keeps."""
