"""Collecting with Tianshou's Rainbow DQN, which learns from the episodes that it plays (extra ``rl``)."""

from worldmodels.core.errors import UserError

try:
    import tianshou as tianshou
except ImportError:
    raise UserError(
        'the policy rainbow needs tianshou, which is not installed; pip install "worldmodels[rl]"'
    ) from None
