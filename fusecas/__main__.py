import sys

from fusecas.cli import main

sys.exit(main())
