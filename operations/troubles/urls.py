from __future__ import annotations

from django.contrib import admin
from django.urls import URLPattern, path

from operations.troubles.page import group_page, groups_page

urlpatterns: list[URLPattern] = [
    path("admin/troubles/", admin.site.admin_view(groups_page), name="console-troubles"),
    path("admin/troubles", admin.site.admin_view(groups_page)),
    path("admin/troubles/group/", admin.site.admin_view(group_page), name="console-trouble-group"),
    path("admin/troubles/group", admin.site.admin_view(group_page)),
]
