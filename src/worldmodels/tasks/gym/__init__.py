"""Any Gymnasium environment that shows a picture, as a task whose name is "gym:" and the environment's id.

Importing this package registers the Gymnasium environment "worldmodels/Picture-v0", which makes pictures of the
observations of another one.
"""

import gymnasium

gymnasium.register(id="worldmodels/Picture-v0", entry_point="worldmodels.tasks.gym.world:PictureWorld")
