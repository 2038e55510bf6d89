# syntax=docker/dockerfile:1
# worldmodels on an NVIDIA GPU. The machine needs NVIDIA's driver and its container toolkit; PyTorch's wheels bring the
# CUDA libraries. Build it in the project's folder, and run any verb that needs no window:
#
#   docker build -f docker/cuda.Dockerfile -t worldmodels:cuda .
#   docker run --rm --gpus all -v "$PWD/runs:/srv/worldmodels/runs" worldmodels:cuda train take-cover
#
# It differs from the Dockerfile for CPUs in where PyTorch comes from and in what the container may use of the driver.

ARG PYTHON=3.12

FROM python:${PYTHON}-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /usr/local/worldmodels
ENV PATH=/usr/local/worldmodels/bin:$PATH
WORKDIR /src
# The packages first: this layer, which takes minutes and gigabytes, is kept as long as their versions are.
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY src/worldmodels/__init__.py src/worldmodels/
RUN pip install -c constraints.txt torch \
    && pip install -c constraints.txt hatchling editables \
    && pip install -c constraints.txt --no-build-isolation ".[all]" \
    && pip uninstall --yes worldmodels
COPY src src
RUN pip install --no-deps --no-build-isolation .

FROM python:${PYTHON}-slim-bookworm
LABEL org.opencontainers.image.title="worldmodels" \
      org.opencontainers.image.description="World Models: V sees, M dreams, C acts (Ha & Schmidhuber 2018)" \
      org.opencontainers.image.licenses="MIT"
RUN useradd --create-home --home-dir /srv/worldmodels --uid 1000 worldmodels
COPY --from=build /usr/local/worldmodels /usr/local/worldmodels
# No sound card. What is compiled at the first use is kept in the home folder.
ENV PATH=/usr/local/worldmodels/bin:$PATH \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    SDL_AUDIODRIVER=dummy \
    MPLBACKEND=agg \
    NUMBA_CACHE_DIR=/srv/worldmodels/.cache/numba \
    PYTHONUNBUFFERED=1
USER 1000
WORKDIR /srv/worldmodels
# A folder of the user's own, so that a volume in its place gets that owner, too.
RUN mkdir -p runs .cache/numba && python -c "from worldmodels.tasks.car_racing.env import compile_drawing; compile_drawing()"
ENTRYPOINT ["worldmodels"]
CMD ["--help"]
