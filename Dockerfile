# The image of `cargo xtask image`, for those who build with Docker or Podman. (Here it is only
# another way to the same thing: what the tests use is `cargo xtask image`, which needs no daemon.)
#
#   docker build -t corten:0.1.0 .

FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
# Static: the image has no libraries. Only with --target may it be.
RUN target="$(rustc -vV | sed -n 's/^host: //p')" \
    && RUSTFLAGS="-C target-feature=+crt-static" \
       cargo build --locked --profile dist --target "$target" -p corten --bin corten \
    && cp "target/$target/dist/corten" /corten

FROM scratch
COPY --from=build /corten /corten
# Nobody; the agent's Pod asks for root.
USER 65534:65534
ENTRYPOINT ["/corten"]
