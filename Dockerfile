# The gateway's image. Node strips the types itself, so there is nothing to build: the first stage only installs packages.
FROM docker.io/library/node:24-bookworm-slim AS packages
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
# The optional packages are a faster codec for what BullMQ hands to Redis, and TypeScript, which nothing here runs. No
# install script runs either: the rest works without.
RUN npm ci --omit=dev --omit=optional --ignore-scripts

FROM docker.io/library/node:24-bookworm-slim
ENV NODE_ENV=production HOST=0.0.0.0
WORKDIR /app
# Everything belongs to root, so that the process can't change its own code; it writes nothing to the disk.
COPY --from=packages /app/node_modules node_modules
COPY package.json openapi.yaml ./
COPY config config
COPY migrations migrations
COPY src src
USER node
EXPOSE 8080
# Only whether the process runs: a gateway whose database is away must not be restarted for it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.PORT || 8080}/health/live`).then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))"]
# Without a shell in between, so that SIGTERM reaches the gateway.
CMD ["node", "src/main.ts"]
