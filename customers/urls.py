from __future__ import annotations

from django.urls import URLPattern, path

from customers.api.erasure_views import ErasureView
from customers.api.export_views import CustomerExportView, CustomersExportView
from customers.api.maintenance_urls import maintenance_paths
from customers.api.saga_views import SagaListView, SagaView
from customers.api.sync_views import ConflictResolutionView, SyncHealthView
from customers.api.views import CustomerDetailView, CustomerListView


def _paths(prefix: str, *, described: bool) -> list[URLPattern]:
    """Each address with and without its trailing slash; one form of each is in the API's description."""
    hidden = {"schema": None}
    shown = {} if described else hidden
    one = f"{prefix}/<str:customer_id>"
    saga = f"{prefix}/sagas/<str:saga_id>"
    resolution = f"{one}/conflicts/<str:conflict_id>/resolution"
    name = "" if described else "-unversioned"
    return [
        path(f"{prefix}/", CustomerListView.as_view(**shown), name=f"customers{name}"),
        path(prefix, CustomerListView.as_view(**hidden)),
        *maintenance_paths(prefix, described=described),
        path(f"{prefix}/export.csv", CustomersExportView.as_view(**shown), name=f"customers-export{name}"),
        path(f"{prefix}/sagas/", SagaListView.as_view(**shown), name=f"sagas{name}"),
        path(f"{prefix}/sagas", SagaListView.as_view(**hidden)),
        path(f"{one}/erasure/", ErasureView.as_view(**shown), name=f"customer-erasure{name}"),
        path(f"{one}/erasure", ErasureView.as_view(**hidden)),
        path(f"{one}/export/", CustomerExportView.as_view(**shown), name=f"customer-export{name}"),
        path(f"{one}/export", CustomerExportView.as_view(**hidden)),
        path(f"{one}/", CustomerDetailView.as_view(**shown), name=f"customer{name}"),
        path(one, CustomerDetailView.as_view(**hidden)),
        path(f"{saga}/", SagaView.as_view(**shown), name=f"saga{name}"),
        path(saga, SagaView.as_view(**hidden)),
        path(f"{one}/sync-health/", SyncHealthView.as_view(**shown), name=f"sync-health{name}"),
        path(f"{one}/sync-health", SyncHealthView.as_view(**hidden)),
        path(f"{resolution}/", ConflictResolutionView.as_view(**shown), name=f"conflict-resolution{name}"),
        path(resolution, ConflictResolutionView.as_view(**hidden)),
    ]


urlpatterns = [*_paths("api/v1/customers", described=True), *_paths("customers", described=False)]
