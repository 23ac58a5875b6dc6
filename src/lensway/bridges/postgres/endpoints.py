"""Where the servers of a source are: every address of every host of its list, in order, as far as the policy allows."""

from __future__ import annotations

from typing import NamedTuple

from lensway.bridges.contract import AddressPolicy
from lensway.bridges.kit.addresses import check_host, check_socket, resolve
from lensway.bridges.postgres.places import Place
from lensway.bridges.postgres.settings import PostgresSettings
from lensway.errors import LenswayError


class Endpoint(NamedTuple):
    """One address of one host; of a Unix socket the directory."""

    host: str
    port: int
    address: str

    @property
    def socket_path(self) -> str | None:
        """The file of a Unix socket; None for an address."""
        return f"{self.address}/.s.PGSQL.{self.port}" if self.address.startswith("/") else None


def check_places(settings: PostgresSettings, policy: AddressPolicy) -> None:
    """Refuse what can be refused without resolving. Raises LenswayError SOURCE_UNREACHABLE class forbidden_address."""
    for place in settings.places:
        if place.is_socket:
            check_socket(place.host, policy)
        else:
            check_host(place.host, policy, place.port)


async def endpoints_of(settings: PostgresSettings, policy: AddressPolicy) -> list[Endpoint]:
    """The endpoints in the order of the list.

    Raises:
        LenswayError: SOURCE_UNREACHABLE, when no host of the list has an address that is allowed.
    """
    failure: LenswayError | None = None
    found: list[Endpoint] = []
    for place in settings.places:
        try:
            found += [Endpoint(place.host, place.port, address) for address in await _addresses(place, policy)]
        except LenswayError as error:
            failure = failure or error
    if not found:
        assert failure is not None, "a source has a host"
        raise failure
    return found


async def _addresses(place: Place, policy: AddressPolicy) -> list[str]:
    if not place.is_socket:
        return await resolve(place.host, place.port, policy)
    check_socket(place.host, policy)
    return [place.host]
