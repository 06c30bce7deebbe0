// What one writes in an afternoon with the usual packages, written well: ws, ioredis with automatic pipelining,
// rate-limiter-flexible, jsonwebtoken. A fixed window, permissions from the token, a bare PUBLISH; nothing durable.
// Same addresses, same messages: the same load generator drives it.
import http from "node:http";
import { randomUUID } from "node:crypto";
import { WebSocketServer } from "ws";
import Redis from "ioredis";
import jwt from "jsonwebtoken";
import { RateLimiterRedis } from "rate-limiter-flexible";

const { PORT, REDIS_PORT, SECRET } = process.env;
const redis = new Redis({ port: Number(REDIS_PORT), host: "127.0.0.1", enableAutoPipelining: true, noDelay: true });
const limiter = new RateLimiterRedis({ storeClient: redis, keyPrefix: "peer:rate", points: 1_000_000_000, duration: 60 });
const actions = new Map([
  ["cancel_job", "cancel"],
  ["pause_job", "pause"],
  ["resume_job", "resume"],
]);

const server = http.createServer((request, response) => response.writeHead(request.url === "/readyz" ? 200 : 404).end());
const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false, maxPayload: 16 * 1024, clientTracking: false });

server.on("upgrade", (request, socket, head) => {
  const job = request.url.match(/^\/api\/v1\/realtime\/ws\/jobs\/([A-Za-z0-9._-]+)/)?.[1];
  let caller;
  try {
    caller = jwt.verify((request.headers.authorization ?? "").replace(/^Bearer /, ""), SECRET, { algorithms: ["HS256"] });
  } catch {
    return socket.end("HTTP/1.1 401 Unauthorized\r\n\r\n");
  }
  if (!job) return socket.end("HTTP/1.1 404 Not Found\r\n\r\n");
  socket.setNoDelay(true);
  sockets.handleUpgrade(request, socket, head, (ws) => serve(ws, caller, job));
});

function serve(ws, caller, job) {
  const { tenant_id: tenant, sub: user } = caller;
  const may = new Set(caller.permissions ?? ["cancel", "pause", "resume"]);
  const channel = `${tenant}:job:control`;
  const fail = (error, message) => ws.send(JSON.stringify({ type: "error", error, message }));
  ws.send(JSON.stringify({ type: "subscribed", channel: `${tenant}:job:${job}`, tenant_id: tenant, job_id: job }));
  ws.send(JSON.stringify({ type: "job_snapshot", job_id: job }));
  ws.on("message", async (data) => {
    let action;
    try {
      action = actions.get(JSON.parse(data).type);
    } catch {
      return fail("invalid_message", "not JSON");
    }
    if (!action) return fail("unknown_type", "unknown type");
    if (!may.has(action)) return fail("permission_denied", `Insufficient permissions to ${action} job`);
    try {
      await limiter.consume(`${tenant}:${user}`);
    } catch (rejected) {
      return fail("rate_limit_exceeded", `retry after ${Math.ceil((rejected.msBeforeNext ?? 1000) / 1000)}`);
    }
    const command = randomUUID();
    const message = { action, job_id: job, tenant_id: tenant, user_id: user, command_id: command, issued_at: new Date().toISOString() };
    const workers = await redis.publish(channel, JSON.stringify(message));
    ws.send(JSON.stringify({ type: `${action}_requested`, job_id: job, tenant_id: tenant, command_id: command, workers_online: workers }));
  });
}

server.listen({ port: Number(PORT), host: "127.0.0.1", backlog: 4096 });
