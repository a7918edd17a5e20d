"""``python -m farmsyncd.cli``: the ``farmsync`` command without an installed script."""

from farmsyncd.cli.main import main

main()
