"""A Rainbow DQN that learns while it plays the episodes that are collected; Tianshou's (extra ``rl``)."""

from worldmodels.core.errors import UserError

try:
    import tianshou as tianshou
except ImportError:
    raise UserError('the policy rainbow needs the missing tianshou; pip install "worldmodels[rl]"') from None
