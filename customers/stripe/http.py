"""How requests reach Stripe: over kept connections, without doing for each call what is the same for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import requests
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict

_CONNECTIONS: Final = 32


class PlainSession(requests.Session):
    """Sends what Stripe's library made ready as it is.

    What requests does for each call beside sending it takes as long as that: it merges settings that never differ. And
    it keeps cookies, makes a GET of a POST that was redirected, and takes a password that somebody keeps in a netrc for
    a better one than the key. A redirect is an answer like any other here, of which the library makes an error.

    Args:
        environment: whether the proxies of the environment count.
    """

    def __init__(self, *, environment: bool) -> None:
        super().__init__()
        self.trust_env = environment
        adapter = HTTPAdapter(pool_connections=4, pool_maxsize=_CONNECTIONS)
        self.mount("https://", adapter)
        self.mount("http://", adapter)
        self._common = dict(self.headers)
        self._settings: dict[str, Any] | None = None

    # With what the library hands over, which is less than requests takes.
    def request(  # type: ignore[override]
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        data: str | None,
        timeout: tuple[float, float],
        verify: str | bool,
    ) -> requests.Response:
        """Send one request and read its answer.

        Args:
            method: in any case.
            url: whole and quoted.
            headers: of this request.
            data: the body, encoded as the headers say; None sends none.
            timeout: seconds for connecting and for each read.
            verify: path of the certificates that are trusted.

        Raises:
            requests.RequestException: there was no answer.
        """
        prepared = requests.PreparedRequest()
        prepared.method, prepared.url = method.upper(), url
        prepared.headers = CaseInsensitiveDict({**self._common, **headers})
        if data is not None:
            prepared.body = data.encode()
            prepared.headers["Content-Length"] = str(len(prepared.body))
        if self._settings is None:
            # All calls go to one host.
            self._settings = self.merge_environment_settings(url, {}, None, verify, None) | {"stream": False}
        response = self.get_adapter(url).send(prepared, timeout=timeout, **self._settings)
        # Read here, so that an answer that breaks off is an error of this call.
        _ = response.content
        return response
