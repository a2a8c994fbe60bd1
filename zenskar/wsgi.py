"""WSGI entry point: ``python -m zenskar.web``."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

from dbresilience.work import serve_requests
from zenskar.starting import wrong_settings_told

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "zenskar.settings")

serve_requests()
with wrong_settings_told():
    application = get_wsgi_application()
