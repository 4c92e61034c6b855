"""The toy project for these tests."""

from toy import parcels as parcels
from toy import ready as ready
from toy import replayed as replayed
from toy import toy as toy
