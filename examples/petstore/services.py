"""What the shop does: rows and their events in one transaction."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

from django.db import IntegrityError
from django.db.models import F
from django.utils import timezone

from dbresilience.sqlstate import sqlstate_of
from dbresilience.transactions import run_in_transaction
from examples.petstore.errors import AlreadyRegistered, OutOfStock, UnknownOrder, UnknownPet
from examples.petstore.models import Order, Pet, User
from outbox.events import NewEvent
from outbox.publishing import publish, publish_many

PETS: Final = "pets"
ORDERS: Final = "orders"
USERS: Final = "users"
TOPICS: Final = (PETS, ORDERS, USERS)
_UNIQUE_VIOLATION: Final = "23505"


def pet_create(
    *,
    name: str,
    species: str,
    price: Decimal,
    breed: str = "",
    age: int | None = None,
    category: str = "",
    description: str = "",
    stock: int = 1,
) -> tuple[Pet, int]:
    """Put a pet up for sale; the pet, and the id of its event."""

    def work() -> tuple[Pet, int]:
        pet = Pet.objects.create(
            name=name,
            species=species,
            price=price,
            breed=breed,
            age=age,
            category=category,
            description=description,
            stock=stock,
        )
        return pet, publish(_pet_event("created", pet, pet_payload(pet)))

    return run_in_transaction(work)


def order_place(
    *, customer_id: str, pet_id: str, quantity: int = 1, special_instructions: str = ""
) -> tuple[Order, list[int]]:
    """Take pets out of the stock and confirm the order; with the ids of the order's events, in their order.

    Raises:
        UnknownPet: there is none of this id.
        OutOfStock: there are not so many left; of two who want the last one, one gets it.
    """

    def work() -> tuple[Order, list[int]]:
        # One conditional statement: whoever comes second waits for the row, and then finds too few.
        taken = Pet.objects.filter(pk=pet_id, stock__gte=quantity).update(stock=F("stock") - quantity)
        pet = Pet.objects.filter(pk=pet_id).first()
        if pet is None:
            raise UnknownPet
        if not taken:
            raise OutOfStock(f"{pet.stock} of them are left.")
        order = Order.objects.create(
            customer_id=customer_id,
            pet=pet,
            quantity=quantity,
            total=pet.price * quantity,
            special_instructions=special_instructions,
        )
        created = order_payload(order)
        order.status, order.confirmed_at = Order.Status.CONFIRMED, timezone.now()
        order.save(update_fields=["status", "confirmed_at"])
        confirmed = {"order_id": order.pk, "status": order.status, "confirmed_at": order.confirmed_at}
        reserved = {"pet_id": pet.pk, "order_id": order.pk, "quantity": quantity, "stock": pet.stock}
        ids = publish_many(
            [
                _order_event("created", order, created),
                _order_event("confirmed", order, confirmed),
                _pet_event("reserved", pet, reserved),
            ]
        )
        return order, ids[:2]

    return run_in_transaction(work)


def order_ship(*, order_id: str, caused_by: str = "") -> bool:
    """Ship a confirmed order; False if it was shipped before, and nothing was done.

    Args:
        order_id: which.
        caused_by: id of the event that led to it.

    Raises:
        UnknownOrder: there is none of this id.
    """

    def work() -> bool:
        order = Order.objects.select_for_update().filter(pk=order_id).first()
        if order is None:
            raise UnknownOrder
        if order.status == Order.Status.SHIPPED:
            return False
        order.status, order.shipped_at = Order.Status.SHIPPED, timezone.now()
        order.save(update_fields=["status", "shipped_at"])
        shipped = {"order_id": order.pk, "status": order.status, "shipped_at": order.shipped_at}
        event = _order_event("shipped", order, shipped)
        publish(replace(event, origin="shipping", causation_id=caused_by))
        return True

    return run_in_transaction(work)


def user_register(*, user_id: str, name: str, email: str, phone: str = "") -> tuple[User, int]:
    """Register a user; the user, and the id of its event.

    Raises:
        AlreadyRegistered: of this id there is one.
    """

    def work() -> tuple[User, int]:
        user = User.objects.create(id=user_id, name=name, email=email, phone=phone)
        payload = {"user_id": user.pk, "name": name, "email": email, "phone": phone}
        event = NewEvent(
            topic=USERS, type="registered", aggregate_type="user", aggregate_id=user.pk, payload=payload, origin="api"
        )
        return user, publish(event)

    try:
        return run_in_transaction(work)
    except IntegrityError as exc:
        if sqlstate_of(exc) != _UNIQUE_VIOLATION:
            raise
        raise AlreadyRegistered from exc


def pet_payload(pet: Pet) -> dict[str, Any]:
    """A pet as its event tells of it."""
    return {
        "pet_id": pet.pk,
        "name": pet.name,
        "species": pet.species,
        "breed": pet.breed,
        "age": pet.age,
        "price": float(pet.price),
        "category": pet.category,
        "description": pet.description,
        "stock": pet.stock,
    }


def order_payload(order: Order) -> dict[str, Any]:
    """An order as its first event tells of it."""
    return {
        "order_id": order.pk,
        "customer_id": order.customer_id,
        "pet_id": order.pet_id,
        "quantity": order.quantity,
        "total": str(order.total),
        "special_instructions": order.special_instructions,
        "status": order.status,
        "created_at": order.created_at,
    }


def _pet_event(type: str, pet: Pet, payload: dict[str, Any]) -> NewEvent:
    return NewEvent(topic=PETS, type=type, aggregate_type="pet", aggregate_id=pet.pk, payload=payload, origin="api")


def _order_event(type: str, order: Order, payload: dict[str, Any]) -> NewEvent:
    return NewEvent(
        topic=ORDERS, type=type, aggregate_type="order", aggregate_id=order.pk, payload=payload, origin="api"
    )
