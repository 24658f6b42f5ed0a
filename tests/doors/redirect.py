"""Makes real clients speak to the stand-ins; loaded by a .pth file of their environments."""

import functools
import os

if kaggle := os.environ.get("STAND_IN_KAGGLE"):
    from kagglesdk import kaggle_env

    kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.PROD] = kaggle
if colab := os.environ.get("STAND_IN_COLAB"):
    import colab_cli.auth
    import colab_cli.client
    import requests

    class Session(requests.Session):
        """What Google's credentials make of the user's token."""

        def __init__(self) -> None:
            super().__init__()
            self.headers["Authorization"] = f"Bearer {os.environ['STAND_IN_COLAB_TOKEN']}"

    colab_cli.client.Prod = functools.partial(colab_cli.client.Prod, domain=colab)
    colab_cli.auth.get_credentials = lambda *_, **__: Session()
