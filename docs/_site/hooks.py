"""What MkDocs is told besides the pages of docs/: the reference, made from the code, and the papers of the house.

Named in mkdocs.yml. Pages keep the addresses that they have in the repository, so that their links work on a forge as
well; here a link to a file outside of docs/ leads to that file's page, or to the file itself below `files/`.
"""

import re
from pathlib import Path
from posixpath import normpath, relpath
from typing import Any

from mkdocs.structure.files import File, Files

from pilothouse.docs._site.reference import PAGES

ROOT = Path(__file__).parents[2]
PAPERS = {
    "CONTRIBUTING.md": "house/contributing.md",
    "DECISIONS.md": "house/decisions.md",
    "CHANGELOG.md": "house/changelog.md",
    "compose/README.md": "house/compose.md",
    "README.md": "house/readme.md",
}
"""Pages that stand outside of docs/, and where the site has them."""
LINK = re.compile(r"(?<=\]\()(?P<target>[^)#:\s]+)(?P<part>#[^)\s]*)?(?=\))")


def on_files(files: Files, config: Any) -> Files:
    """Add what is not in docs/."""
    for name, made in PAGES.items():
        files.append(File.generated(config, name, content=made()))
    for paper, name in PAPERS.items():
        files.append(File.generated(config, name, content=(ROOT / paper).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links as the site has them."""
    here = page.file.src_uri
    home = next((paper for paper, name in PAPERS.items() if name == here), f"docs/{here}")

    def led(link: re.Match[str]) -> str:
        wanted = normpath(f"{home.rpartition('/')[0]}/{link['target']}").lstrip("/")
        target = _place(wanted, config, files)
        if target is None:
            return link[0]
        return relpath(target, here.rpartition("/")[0] or ".") + (link["part"] or "")

    return LINK.sub(led, markdown)


def _place(wanted: str, config: Any, files: Files) -> str | None:
    """Where the site has what the repository has at `wanted`; None where it has neither."""
    if wanted.startswith("docs/"):
        return wanted.removeprefix("docs/")
    if (ROOT / wanted).is_dir():
        wanted = next((paper for paper in PAPERS if paper.rpartition("/")[0] == wanted.rstrip("/")), "")
    if wanted in PAPERS:
        return PAPERS[wanted]
    if not (ROOT / wanted).is_file():
        return None
    name = f"files/{wanted}"
    if files.get_file_from_path(name) is None:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / wanted)))
    return name
