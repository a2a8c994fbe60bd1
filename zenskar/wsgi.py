"""WSGI entry point: ``gunicorn -c zenskar/gunicorn_settings.py zenskar.wsgi``."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

from dbresilience.work import serve_requests

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "zenskar.settings")

serve_requests()
application = get_wsgi_application()
