"""The toy project, replayed and never disturbed."""

from toy import parcels as parcels
from toy import replayed as replayed
