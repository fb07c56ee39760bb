import sys
from pathlib import Path

# The browser's tests have helpers of their own; these are the unit tests'.
sys.path.insert(0, str(Path(__file__).parent))
