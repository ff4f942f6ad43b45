"""Whether the Hugging Face hub can be reached, told within seconds.

Its client asks six times with pauses between: 23 s where a name can't be resolved, minutes where a firewall swallows
packets. Only the opening of a connection is timed here: one that opens may be as slow as it is.
"""

import logging
import sys
from urllib.parse import urlsplit

_log = logging.getLogger(__name__)
_PATIENCE = 4.0  # seconds: a lost first packet is sent again after 1 and 3
_TRIES = 2  # a connection that is cut may be an accident


class UnreachableError(Exception):
    """No connection to the hub, or to the proxy on the way there, can be opened; says why."""


def check_reachable() -> None:
    """Ask the hub for an answer of any kind, on the way that its client takes.

    Raises:
        UnreachableError: no connection opens, each is cut, or HF_HUB_OFFLINE is set.
    """
    import requests
    from huggingface_hub import constants, get_session  # with the certificates and proxies that it is told of

    if constants.HF_HUB_OFFLINE:
        raise UnreachableError("HF_HUB_OFFLINE=1 keeps from asking the hub")
    place, reason = urlsplit(constants.ENDPOINT).hostname, ""
    handled = sys.exception()  # the caller asks since a file isn't in the cache: no reason of the connection's
    for _ in range(_TRIES):
        try:
            get_session().head(constants.ENDPOINT, timeout=_PATIENCE)
            return
        except requests.ConnectTimeout as error:
            raise UnreachableError(f"{place} can't be reached (no connection within {_PATIENCE:g} s)") from error
        except requests.Timeout:
            return  # connected, and slow
        except requests.exceptions.ProxyError as error:
            reason = f"the proxy: {_innermost(error, handled)}"
        except requests.ConnectionError as error:
            reason = _innermost(error, handled)
    raise UnreachableError(f"{place} can't be reached ({reason})")


def warn_unless_known(repo: str, name: str, why: UnreachableError) -> None:
    """Warn that a file which only some models have is taken as absent, unless the cache says that it is."""
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

    if try_to_load_from_cache(repo, name) is not _CACHED_NO_EXIST:
        _log.warning("%s: whether it has %s isn't known, as %s; taken as absent", repo, name, why)


def _innermost(error: BaseException, handled: BaseException | None) -> str:
    while error.__context__ is not None and error.__context__ is not handled:
        error = error.__context__
    return str(error)[:200]
