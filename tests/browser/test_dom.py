"""What a page that is drawn again leaves alone, over the page's own module in a real browser."""

from __future__ import annotations

from importlib.resources import files

from hypothesis import given, settings
from hypothesis import strategies as st
from seen import Seen

# A child: what it is known by (nothing: by its place), its tag, its text.
CHILD = st.tuples(st.sampled_from([None, "0", "1", "2", "3"]), st.sampled_from(["p", "a"]), st.sampled_from(["x", "y"]))
APART = st.lists(CHILD, max_size=6, unique_by=lambda child: child[0] or object())
CHILDREN = APART | st.lists(CHILD, max_size=6)  # two may have one key, as two phases of a trial in a Pareto front

DRAW = """async ([before, after]) => {
  const { h, fill, show } = await import("/dom.js");
  const made = (children) => children.map(([key, tag, text]) => h(tag, { key, href: "#", tabindex: "0" }, text));
  const box = h("div"), plain = h("div");
  document.body.replaceChildren(box);
  show(box, made(before));
  const old = new Map([...box.children].filter((one) => one.dataset.key).map((one) => [one.dataset.key, one]));
  show(box, made(after));
  fill(plain, made(after));
  return {
    drawn: box.innerHTML, wanted: plain.innerHTML,
    stayed: [...box.children].filter((one) => old.get(one.dataset.key) === one).map((one) => one.dataset.key),
  };
}"""

FOCUS = """async ([before, after, key]) => {
  const { h, show } = await import("/dom.js");
  const made = (keys) => keys.map((each) => h("p", { key: each }, h("a", { href: "#" }, each)));
  const box = h("div");
  document.body.replaceChildren(box);
  show(box, made(before));
  box.querySelector(`[data-key="${key}"] a`).focus();
  show(box, made(after));
  return document.activeElement.textContent;
}"""


def opened(seen: Seen) -> None:
    module = (files("tune.portal") / "static" / "dom.js").read_text()
    seen.page.route("http://page/dom.js", lambda route: route.fulfill(body=module, content_type="text/javascript"))
    seen.page.route("http://page/", lambda route: route.fulfill(body="<body>", content_type="text/html"))
    seen.page.goto("http://page/")


def test_what_is_shown_is_what_was_wanted_and_what_has_a_key_stays(seen: Seen) -> None:
    opened(seen)

    @settings(max_examples=200, deadline=None)
    @given(CHILDREN, CHILDREN)
    def drawn(before: list[tuple[str | None, str, str]], after: list[tuple[str | None, str, str]]) -> None:
        found = seen.page.evaluate(DRAW, [before, after])
        assert found["drawn"] == found["wanted"]
        tags = {key: tag for key, tag, _ in before}
        if all(
            len(set(keys)) == len(keys) for keys in ([key for key, _, _ in each if key] for each in (before, after))
        ):
            assert found["stayed"] == [key for key, tag, _ in after if key and tags.get(key) == tag]

    drawn()


def test_a_line_that_comes_or_goes_before_it_leaves_the_focus(seen: Seen) -> None:
    opened(seen)

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.sampled_from("abcdef"), unique=True), st.lists(st.sampled_from("abcdef"), unique=True))
    def looked(before: list[str], after: list[str]) -> None:
        lines = [sorted({*each, "c"}) for each in (before, after)]
        assert seen.page.evaluate(FOCUS, [*lines, "c"]) == "c"

    looked()
