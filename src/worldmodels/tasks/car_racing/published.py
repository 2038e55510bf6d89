"""CarRacing as the published weights of 2018 see it (Ha & Schmidhuber, "World Models")."""

import numpy as np

from worldmodels.tasks.car_racing.task import BAR_ROWS, CarRacing
from worldmodels.tasks.published_frames import published_frames


class PublishedCarRacing(CarRacing):
    """The same world with the frames of the authors' code. M predicts no reward and no end, and dreams pay nothing."""

    title = "CarRacing, frames of 2018"
    start_steps = (0,)
    predicts_reward = False
    predicts_end = False
    alive_reward = 0.0

    def frames(self, observations: np.ndarray) -> np.ndarray:
        """Crop the indicator bar and make the authors' frames of the rest."""
        return published_frames(observations[:, :-BAR_ROWS])
