"""Addresses of the console's pages of read models; they stand before the console's own."""

from __future__ import annotations

from django.contrib import admin
from django.urls import URLPattern, path

from projections.console.board import board_page, projection_page

urlpatterns: list[URLPattern] = [
    path("admin/projections/", admin.site.admin_view(board_page), name="console-projections"),
    path("admin/projections", admin.site.admin_view(board_page)),
    path("admin/projections/board/<str:name>/", admin.site.admin_view(projection_page), name="console-projection"),
    path("admin/projections/board/<str:name>", admin.site.admin_view(projection_page)),
]
