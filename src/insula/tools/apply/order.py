"""In which order things are done that need each other."""

from collections.abc import Mapping, Set


def groups(needs: Mapping[str, Set[str]]) -> list[list[str]]:
    """Names so that each comes after what it needs; those of a circle come as one group.

    A name that is needed and not a key is passed over. Besides, the order of keys is kept.
    """
    # Tarjan's algorithm, which gives components in the order wanted; its own stack instead of
    # recursion, because a file may hold a long chain.
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    found: list[list[str]] = []
    for root in needs:
        if root in index:
            continue
        work = [(root, iter(_sorted(needs, root)))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            name, rest = work[-1]
            following = next(rest, None)
            if following is not None:
                if following not in index:
                    index[following] = low[following] = len(index)
                    stack.append(following)
                    on_stack.add(following)
                    work.append((following, iter(_sorted(needs, following))))
                elif following in on_stack:
                    low[name] = min(low[name], index[following])
                continue
            work.pop()
            if work:
                low[work[-1][0]] = min(low[work[-1][0]], low[name])
            if low[name] == index[name]:
                at = stack.index(name)
                group = stack[at:]
                del stack[at:]
                on_stack.difference_update(group)
                found.append(sorted(group, key=list(needs).index))
    return found


def _sorted(needs: Mapping[str, Set[str]], name: str) -> list[str]:
    return sorted(other for other in needs[name] if other in needs and other != name)
