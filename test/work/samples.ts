/** Wire samples: the examples of the published reference, with values as the platform sends them. */
export const KEY = "sk-ant-oat01-Zm9vYmFyYmF6cXV4";
export const ENVIRONMENT = "env_011CZkZ9X2dpNyB7HsEFoRfW";

export const QUEUED = {
  id: "work_01",
  type: "work",
  environment_id: ENVIRONMENT,
  state: "queued",
  data: { type: "session", id: "session_01" },
  created_at: "2026-04-01T10:00:00.123456Z",
  acknowledged_at: null,
  latest_heartbeat_at: null,
  started_at: null,
  stop_requested_at: null,
  stopped_at: null,
  metadata: {},
  secret: null,
};

export const SECRET = Buffer.from(JSON.stringify({ sessions_token: "sk-ant-req-c2Vzc2lvbi10b2tlbg" })).toString(
  "base64url",
);

export const POLLED = { ...QUEUED, secret: SECRET };
export const STARTING = { ...QUEUED, state: "starting", acknowledged_at: "2026-04-01T10:00:01Z" };

export const BEAT = {
  type: "work_heartbeat",
  last_heartbeat: "2026-04-01T10:00:02.000001Z",
  lease_extended: true,
  state: "active",
  ttl_seconds: 90,
};

export const REFUSED_BEAT = {
  type: "error",
  error: {
    type: "invalid_request_error",
    message: "expected_last_heartbeat does not match",
    details: {
      error_code: "heartbeat_precondition_failed",
      current_state: {
        state: "active",
        last_heartbeat: "2026-04-01T10:00:09Z",
        lease_extended: false,
        ttl_seconds: 90,
      },
    },
  },
};

export const STATS = {
  type: "work_queue_stats",
  depth: 3,
  pending: 1,
  oldest_queued_at: "2026-04-01T09:59:00Z",
  workers_polling: 2,
};

/** The API's error body. */
export function apiError(type: string, message: string): unknown {
  return { type: "error", error: { type, message }, request_id: "req_01" };
}
