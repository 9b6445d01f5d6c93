"""The rules for names of refs."""

from unicodedata import category

from fusecas.errors import BadName

NAMESPACES = ("heads", "tags", "packages", "vars", "labels", "pins")
LONGEST = 255
RESERVED = ("ws", "hash")
FORBIDDEN = frozenset(":~^@{}*?[\\ ")
UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zs", "Zl", "Zp"})
"""Categories of characters that a terminal does not show as themselves: controls, formats, spaces."""


def check_name(name: str) -> str:
    """A name as people give it, without its namespace; the same name back, or BadName."""
    problem = _problem(name)
    if problem is not None:
        raise BadName(f"{name!r} can't be a name: {problem}")
    return name


def _problem(name: str) -> str | None:
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "it is not UTF-8"
    if not 1 <= length <= LONGEST:
        return f"it has {length} bytes, 1 to {LONGEST} are allowed"
    if any(segment in ("", ".", "..") for segment in name.split("/")):
        return "an empty segment, '.' or '..' between slashes"
    if found := sorted(each for each in set(name) if each in FORBIDDEN or category(each) in UNSEEN):
        return f"it holds {found[0]!r}"
    if name.startswith("-"):
        return "it starts with '-'"
    if name in RESERVED:
        return "it is reserved"
    if len(name) == 64 and set(name) <= frozenset("0123456789abcdef"):
        return "it looks like a hash"
    return None


def check_ref(name: str) -> str:
    """A full ref, namespace included."""
    namespace, _, rest = name.partition("/")
    if namespace not in NAMESPACES:
        raise BadName(f"{name!r} is in no namespace of refs: {', '.join(NAMESPACES)}")
    check_name(rest)
    return name
