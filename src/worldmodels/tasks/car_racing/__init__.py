"""CarRacing: steer a car over a new random track in every episode.

Importing this package registers the Gymnasium environment "worldmodels/CarRacing-v3".
"""

import gymnasium

# The limit and the threshold are those of Gymnasium's CarRacing-v3.
gymnasium.register(
    id="worldmodels/CarRacing-v3",
    entry_point="worldmodels.tasks.car_racing.env:CarRacing",
    max_episode_steps=1000,
    reward_threshold=900,
)
