"""The browser of the browser tests: `python tests/chromium.py` installs it where it can."""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """Path of a Chromium that starts: one of the system's, or the one Playwright installed."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    candidates = [shutil.which(name) for name in NAMES] + [own]
    return next((path for path in candidates if path and _starts(path)), None)


def _starts(path: str) -> bool:
    """Whether it is a browser: Ubuntu's `chromium-browser` may only say where to get one."""
    try:
        return subprocess.run([path, "--version"], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def install() -> None:
    """Try Debian's package as root, and Playwright's download otherwise; quiet, at most a few minutes."""
    attempts = [[sys.executable, "-m", "playwright", "install", "chromium"]]
    if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        attempts.insert(
            0, ["sh", "-c", "apt-get update -q && apt-get install -qy --no-install-recommends chromium"]
        )
    for command in attempts:
        print(f"Looking for a browser for the browser tests: {' '.join(command[-3:])}", flush=True)
        try:
            done = subprocess.run(
                command,
                env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=600,
            )
        except subprocess.TimeoutExpired:
            continue
        if done.returncode == 0:
            return


def main() -> int:
    """Exit code 1 only where nothing may be skipped: in CI."""
    if find():
        return 0
    install()
    if find():
        return 0
    print("No Chromium could be installed: the browser tests are skipped, all others run.")
    return 1 if os.environ.get("CI") else 0


if __name__ == "__main__":
    sys.exit(main())
