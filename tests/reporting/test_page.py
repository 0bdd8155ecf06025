"""The base page: escaped, alone, and allowed nothing but what it holds."""

import re
from base64 import b64decode, b64encode
from hashlib import sha256
from io import BytesIO

import numpy as np
import pytest
from jinja2 import UndefinedError
from PIL import Image

from delta_attnmask.reporting.page import content_policy, embed_image, make_environment, render_page


def test_everything_is_escaped_and_unknown_names_are_errors():
    html = render_page("base.html", title="<script>alert(1)</script>\ud800")
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;?" in html
    with pytest.raises(UndefinedError):
        make_environment().from_string("{{ nobody }}").render()


def test_policy_allows_the_very_styles_and_scripts_of_the_page():
    html = render_page("base.html", title="t")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1].replace("&#39;", "'")
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; ")
    for tag in ("style", "script"):
        found = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert found
        for text in found:
            assert f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" in policy
    assert not re.search(r"""\s(style|on\w+)=""", html)


def test_policy_of_other_bytes_differs():
    assert content_policy(["a{}"], ["1"]) != content_policy(["a{} "], ["1"])


@pytest.mark.parametrize("size", [(2000, 1000), (40, 10), (1, 300)])
def test_thumbnails_are_bounded_and_never_enlarged(size):
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    thumbnail = embed_image(Image.fromarray(noise), max_side=256, max_bytes=6000)
    data = b64decode(thumbnail.uri.removeprefix("data:image/webp;base64,"))
    assert len(data) <= 6000
    with Image.open(BytesIO(data)) as shown:
        assert shown.size == (thumbnail.width, thumbnail.height)
    assert max(shown.size) <= min(256, max(size))
