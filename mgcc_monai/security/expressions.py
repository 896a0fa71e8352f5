"""Reading a config's ``$`` expression without evaluating it, and saying what in it is not allowed.

The text judged is the one that MONAI would hand to ``eval``: with its references replaced by MONAI's own functions.
"""

from __future__ import annotations

import ast
from typing import Any

from monai.bundle import ConfigParser, ReferenceResolver

from mgcc_monai.security.targets import MODULES, callable_fault

__all__ = ["MAX_EXPRESSION", "expression_faults"]

MAX_EXPRESSION = 2000
"""Characters; a longer expression is refused unread."""

_MAX_POWER = 8
_REFERENCES = "__local_refs"
_BUILTINS = set(
    "abs all any bool dict enumerate filter float int isinstance len list map max min range reversed round set sorted "
    "str sum tuple zip".split()
)
# Of values: what our own configs ask of tensors, images, networks, engines, mappings, words.
_ATTRIBUTES = set(
    "T clamp config convert count device dtype encoder endswith expand finish get in_channels index items join keys "
    "latent_channels lower lstrip mean mode meta ndim num_train_timesteps parameters permute quant_conv replace "
    "reshape rstrip run sampler scheduler set_consistency_weight shape size split squeeze startswith start state std "
    "strip sum to type unet unsqueeze upper vae values".split()
)
_PLAIN = (
    *(ast.BinOp, ast.BoolOp, ast.Call, ast.Compare, ast.Dict, ast.Expr, ast.Expression, ast.IfExp, ast.Lambda),
    *(ast.List, ast.Set, ast.Slice, ast.Starred, ast.Subscript, ast.Tuple, ast.UnaryOp, ast.keyword),
    *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.comprehension, ast.arguments, ast.arg),
    *(ast.boolop, ast.cmpop, ast.expr_context, ast.operator, ast.unaryop),
)
_WHY_NOT = {
    ast.JoinedStr: "an f-string",
    ast.NamedExpr: "an assignment",
    ast.Await: "await",
    ast.Yield: "yield",
    ast.YieldFrom: "yield",
}


def _as_evaluated(id: str, value: str) -> str:
    """Give the text that MONAI would evaluate for an expression at ``id``, without its ``$``."""
    value = ReferenceResolver.normalize_id(value)
    value = ConfigParser.resolve_relative_ids(id, value)
    return ReferenceResolver.update_refs_pattern(value, ReferenceResolver.match_refs_pattern(value))[1:]


def expression_faults(value: str, id: str = "") -> list[str]:
    """Judge one expression, or one import statement, of a config.

    Args:
        value: the text, from its ``$`` on.
        id: where it stands, such as "train#dataset"; relative references count from there.

    Returns:
        What is not allowed in it, a phrase each.
    """
    if len(value) > MAX_EXPRESSION:
        return [f"has {len(value)} characters, more than the {MAX_EXPRESSION} that are read"]
    try:
        text = _as_evaluated(ReferenceResolver.normalize_id(id), value)
        module = ast.parse(text)
        if module.body and isinstance(module.body[0], ast.Import | ast.ImportFrom):
            return _import_faults(module.body)
        tree = ast.parse(text, mode="eval")
        return list(dict.fromkeys(_Judge(tree).faults))
    except (SyntaxError, ValueError, KeyError, RecursionError, MemoryError) as error:
        return [f"cannot be read as an expression ({type(error).__name__}: {str(error)[:80]})"]


def _import_faults(body: list[ast.stmt]) -> list[str]:
    """Judge an import: one known module, under the one name that stands for it."""
    statement = body[0]
    if len(body) > 1 or len(statement.names) > 1:
        return ["imports and does something else beside; one import a line"]
    alias = statement.names[0]
    module = alias.name
    if isinstance(statement, ast.ImportFrom):
        module = f"{'.' * statement.level}{statement.module or ''}.{alias.name}"
    bound = alias.asname or alias.name
    if MODULES.get(bound) == module:
        return []
    if module in MODULES.values():
        return [f"imports '{module}' as '{bound}'; an expression could take it for another module"]
    return [f"imports '{module}', which is not on the list of modules that a config may import"]


class _Judge(ast.NodeVisitor):
    """Walk a tree and collect faults; what is not known to be harmless is one."""

    def __init__(self, tree: ast.Expression) -> None:
        self.faults: list[str] = []
        self.local: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.arg):
                self.local.add(node.arg)
            elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                self.local.add(node.id)
        taken = sorted(name for name in self.local if name in MODULES or name in _BUILTINS or name.startswith("_"))
        self.faults += [f"uses '{name}' as a name of its own" for name in taken]
        self.visit(tree)

    def generic_visit(self, node: ast.AST) -> None:
        if not isinstance(node, _PLAIN):
            self.faults.append(f"has {_WHY_NOT.get(type(node), type(node).__name__)}, which is not allowed")
            return
        super().generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bytes):
            self.faults.append("has bytes, which is not allowed")

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in MODULES:
            self.faults.append(f"hands on the module '{node.id}'")
        elif node.id not in self.local and node.id not in _BUILTINS:
            self.faults.append(f"uses '{node.id}', which is not on the list of names")

    def visit_Subscript(self, node: ast.Subscript) -> None:
        reference = isinstance(node.value, ast.Name) and node.value.id == _REFERENCES
        if reference and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
            return
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        names: list[str] = []
        inner: Any = node
        while isinstance(inner, ast.Attribute):
            names.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name) and inner.id in MODULES and inner.id not in self.local:
            fault = callable_fault(".".join([MODULES[inner.id], *reversed(names)]))
            self.faults += [fault] if fault else []
            return
        for name in names:
            if name not in _ATTRIBUTES:
                self.faults.append(f"asks a value for '.{name}', which is not on the list of attributes")
        self.visit(inner)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        power = node.right.value if isinstance(node.right, ast.Constant) else None
        if isinstance(node.op, ast.Pow) and (not isinstance(power, int | float) or abs(power) > _MAX_POWER):
            self.faults.append(f"has a power that is not a number up to {_MAX_POWER}, which could take for ever")
        if isinstance(node.op, ast.LShift):
            self.faults.append("has a shift, which could take for ever")
        self.generic_visit(node)
