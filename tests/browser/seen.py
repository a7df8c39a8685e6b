"""A browser's page whose errors are collected: what broke, scripts that ran, breaches of the content policy."""

from __future__ import annotations

from typing import Any


class Seen:
    """A page, and what went wrong in it: errors, scripts that ran, breaches of the content policy."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: dialog.accept())
        page.on("console", self._said)
        page.add_init_script(
            "document.addEventListener('securitypolicyviolation', e => console.error('CSP ' + e.violatedDirective));"
        )

    def _said(self, message: Any) -> None:
        if "CSP" in message.text or "Content Security Policy" in message.text:
            self.errors.append(message.text)
