from delta_attnmask.cli import main

main()
