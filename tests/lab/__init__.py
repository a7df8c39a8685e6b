"""A laboratory of hosts that tests reach over SSH: real servers, cut links, reboots, full disks."""
