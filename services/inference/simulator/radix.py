"""A radix tree over token ids, as SGLang's prefix cache is one: longest common prefix, locks, least-recently-used eviction.

Pages are one token wide. The tree stores only the ids; a real engine has a KV entry for each.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import numpy as np

from services.inference.engine import TokenIds


class Node:
    """A run of tokens below its parent; `locks` counts the requests in flight that stand on it or below."""

    __slots__ = ("children", "ids", "locks", "parent", "used")

    def __init__(self, ids: TokenIds, parent: Node | None, used: int) -> None:
        """Hold `ids`, shape (tokens,), below `parent`; `used` is the tree's count of uses at the last one of this node."""
        self.ids = ids
        self.parent = parent
        self.children: dict[int, Node] = {}
        self.locks = 0
        self.used = used


class RadixTree:
    """A set of token sequences, closed under taking prefixes, until eviction takes leaves away."""

    def __init__(self) -> None:
        """Start empty."""
        self._uses = 0
        self._root = Node(np.empty(0, dtype=np.int32), None, 0)
        self._root.locks = 1
        self.tokens = 0
        """Tokens held."""
        self.locked_tokens = 0
        """Tokens that eviction may not take."""

    def match(self, ids: TokenIds) -> tuple[int, Node]:
        """Return the length of the longest prefix of `ids` that is held, and the node it ends with; counts as a use."""
        self._uses += 1
        node = self._root
        at = 0
        while at < ids.size and (child := node.children.get(int(ids[at]))) is not None:
            common = _common(child.ids, ids[at:])
            if common < child.ids.size:
                child = self._split(child, common)
            child.used = self._uses
            node = child
            at += common
        return at, node

    def peek(self, ids: TokenIds) -> int:
        """Return the length of the longest prefix of `ids` that is held, without counting it as a use."""
        node = self._root
        at = 0
        while at < ids.size and (child := node.children.get(int(ids[at]))) is not None:
            common = _common(child.ids, ids[at:])
            at += common
            if common < child.ids.size:
                break
            node = child
        return at

    def insert(self, ids: TokenIds) -> Node:
        """Hold `ids`, shape (tokens,), and return the node that it ends with; counts as a use."""
        at, node = self.match(ids)
        if at == ids.size:
            return node
        # A copy: a view would keep the whole prompt alive for the sake of its tail.
        leaf = Node(ids[at:].copy(), node, self._uses)
        node.children[int(ids[at])] = leaf
        self.tokens += leaf.ids.size
        return leaf

    def lock(self, node: Node) -> None:
        """Keep the path from the root to `node` from being evicted."""
        for one in _upwards(node):
            if one.locks == 0:
                self.locked_tokens += one.ids.size
            one.locks += 1

    def unlock(self, node: Node) -> None:
        """Undo one `lock` of the same node; raise ValueError when it holds none."""
        for one in _upwards(node):
            if one.locks == 0:
                raise ValueError("unlock of a node that holds no lock")
            one.locks -= 1
            if one.locks == 0:
                self.locked_tokens -= one.ids.size

    def evict(self, tokens: int) -> int:
        """Take away at least `tokens` tokens, leaf by leaf, least recently used first; return how many went.

        Fewer go when the rest is locked.
        """
        heap = [(node.used, id(node), node) for node in self._leaves()]
        heapq.heapify(heap)
        gone = 0
        while heap and gone < tokens:
            _, _, leaf = heapq.heappop(heap)
            parent = leaf.parent
            if parent is None:
                break
            del parent.children[int(leaf.ids[0])]
            gone += leaf.ids.size
            if not parent.children and parent.locks == 0:
                heapq.heappush(heap, (parent.used, id(parent), parent))
        self.tokens -= gone
        return gone

    def _leaves(self) -> Iterator[Node]:
        stack = [self._root]
        while stack:
            node = stack.pop()
            stack.extend(node.children.values())
            if not node.children and node.locks == 0:
                yield node

    def _split(self, node: Node, at: int) -> Node:
        """Cut `node` in two after `at` tokens and return the upper part; locks hold the lower one by its identity."""
        parent = node.parent
        if parent is None:
            raise ValueError("the root has no tokens to split")
        upper = Node(node.ids[:at].copy(), parent, node.used)
        upper.locks = node.locks
        upper.children[int(node.ids[at])] = node
        parent.children[int(node.ids[0])] = upper
        node.ids = node.ids[at:].copy()
        node.parent = upper
        return upper


def _common(a: TokenIds, b: TokenIds) -> int:
    """Return the length of the longest common prefix of two arrays."""
    length = min(a.size, b.size)
    differs = a[:length] != b[:length]
    at = int(differs.argmax()) if length else 0
    return at if length and differs[at] else length


def _upwards(node: Node) -> Iterator[Node]:
    """Yield `node` and what is above it, but for the root, which is never evicted."""
    one: Node | None = node
    while one is not None and one.parent is not None:
        yield one
        one = one.parent
