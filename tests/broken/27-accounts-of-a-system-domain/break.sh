echo example.net >>control/locals
