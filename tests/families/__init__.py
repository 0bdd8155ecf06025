"""Tiny random models of 64 Hugging Face configurations, built in code."""

from tests.families import gemma, idefics, llava, other, qwen, text
from tests.families.family import Family

FAMILIES: dict[str, Family] = {
    family.name: family for module in (qwen, llava, gemma, idefics, other, text) for family in module.FAMILIES
}
