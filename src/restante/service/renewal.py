"""New certificates for a worker that may not read their files: asked for, again and again."""

from __future__ import annotations

import asyncio

from restante.config import Settings
from restante.service.window import NotGiven, Window
from restante.tls import CertificateRefused
from restante.tls.certificates import LOOK_INTERVAL, paths_of
from restante.tls.files import HandedFiles


async def renew(pem: HandedFiles, settings: Settings, window: Window) -> None:
    """Have the files opened anew every LOOK_INTERVAL seconds, until this is cancelled."""
    paths = sorted(paths_of(settings))
    while paths:
        await asyncio.sleep(LOOK_INTERVAL)
        for path in paths:
            try:
                pem.take(path, await window.file(path))
            except NotGiven as error:
                pem.miss(path, CertificateRefused(str(error)))
