r"""TRL's prompt and completion, each a list of messages or a plain text; together they are one conversation.

{"images": ["1.jpg"], "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Who?"}]}],
 "completion": [{"role": "assistant", "content": [{"type": "text", "text": "Me."}]}]}
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from delta_attnmask.errors import ReasonCode, RowError
from delta_attnmask.reading.fields import find_images
from delta_attnmask.reading.messages import read_typed
from delta_attnmask.reading.turns import Conversation, check_messages


@dataclass(frozen=True)
class PromptCompletion:
    spec: str = "prompt-completion"

    def recognises(self, fields: Mapping[str, Any]) -> bool:
        return "prompt" in fields and "completion" in fields

    def parse(self, fields: Mapping[str, Any]) -> Conversation:
        messages: list[object] = []
        for name, role in (("prompt", "user"), ("completion", "assistant")):
            if name not in fields:
                raise RowError(ReasonCode.NO_FIELD, f"no `{name}`")
            value = fields[name]
            given = [{"role": role, "content": value}] if isinstance(value, str) else check_messages(value, name)
            messages += given
        return read_typed(messages, find_images(fields))
