"""Private RabbitMQ nodes and MariaDB servers on the loopback address, for `celltree lab` and for the tests.

Each server lives wholly in one folder given by the caller: configuration, data, logs, process marks and a small
JSON file with its ports. So another process that knows the folder can find the server again, kill it, start it and
stop it. The machine's own RabbitMQ and MariaDB services are neither needed nor touched.
"""
