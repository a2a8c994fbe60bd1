"""The operators' console: Django's admin site with our name and style."""

from __future__ import annotations

from django.contrib.admin import AdminSite


class ConsoleSite(AdminSite):
    """The admin site of the product."""

    site_header = "Zenskar"
    site_title = "Zenskar"
    index_title = "Console"
