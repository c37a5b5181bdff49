from collections.abc import AsyncIterator

import pytest
from temporalio.client import Client

from tests.conftest import Base
from tests.workflows.working import Working, at_work


@pytest.fixture
async def working(base: Base, temporal: Client) -> AsyncIterator[Working]:
    """The worker of the product, on the test clock."""
    async with at_work(base, temporal) as found:
        yield found


@pytest.fixture
async def hurrying(time_lapse: Base, temporal: Client) -> AsyncIterator[Working]:
    """The worker of the product, on real timers in time-lapse."""
    async with at_work(time_lapse, temporal) as found:
        yield found
