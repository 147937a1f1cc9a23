# One image for every process of celltree: daemons, the simulated XenServers, the command line. See docker-compose.yml.
FROM python:3.11-slim-bookworm

# mke2fs and debugfs make and read the demo's images, gzip and tar serve the simulated dom0.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends e2fsprogs \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY . .
RUN pip install --no-cache-dir . && rm -rf /src/*

RUN useradd --create-home celltree \
    && mkdir /tree /data \
    && chown celltree: /tree /data
USER celltree
WORKDIR /home/celltree
VOLUME ["/tree", "/data"]

ENTRYPOINT ["celltree"]
CMD ["--help"]
