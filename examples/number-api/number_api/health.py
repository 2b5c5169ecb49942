"""The image's HEALTHCHECK: asks the service's own endpoint; exit code 0 when it answers."""

import json
import os
import sys
from urllib.request import urlopen


def main() -> int:
    """0 when healthy, 1 otherwise."""
    url = f"http://127.0.0.1:{os.environ.get('PORT', '8080')}/health"
    try:
        with urlopen(url, timeout=2) as response:
            status = json.load(response)["status"]
    except (OSError, ValueError, KeyError) as error:
        print(f"unhealthy: {error}")
        return 1
    print(status)
    return 0 if status == "ok" else 1


if __name__ == "__main__":
    sys.exit(main())
