"""The environment that openstackclient and openstacksdk need to talk to an API cell without a Keystone."""

import shlex


def export_lines(endpoint: str, auth: str, user: str = "", password: str = "") -> list[str]:
    """Shell lines for an API at `endpoint` (http://host:port). `auth` is none or http_basic. The overrides keep the
    client from asking an identity service for addresses; `server list` wants a v3 version document all the same."""
    lines = {
        "OS_AUTH_TYPE": auth,
        "OS_ENDPOINT": f"{endpoint}/v2.1",
        "OS_COMPUTE_ENDPOINT_OVERRIDE": f"{endpoint}/v2.1",
        "OS_IMAGE_ENDPOINT_OVERRIDE": f"{endpoint}/image",
        "OS_IDENTITY_ENDPOINT_OVERRIDE": f"{endpoint}/v3",
    }
    if auth == "http_basic":
        lines |= {"OS_USERNAME": user, "OS_PASSWORD": password}
    return [f"export {name}={shlex.quote(value)}" for name, value in lines.items()]
