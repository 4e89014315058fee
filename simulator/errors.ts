/** An error that the API answers with. Handlers throw it before they change anything. */
export class ApiError extends Error {
  readonly status: number;
  readonly type: string;
  readonly details: Record<string, unknown> | undefined;

  constructor(status: number, type: string, message: string, details?: Record<string, unknown>) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.type = type;
    this.details = details;
  }

  get body(): Record<string, unknown> {
    return {
      type: "error",
      error: { type: this.type, message: this.message, ...(this.details && { details: this.details }) },
    };
  }
}

export const invalidRequest = (message: string) => new ApiError(400, "invalid_request_error", message);
export const notFound = (what: string) => new ApiError(404, "not_found_error", `${what} not found`);
export const conflict = (message: string) => new ApiError(409, "invalid_request_error", message);
export const unauthenticated = () => new ApiError(401, "authentication_error", "invalid bearer token or API key");
export const forbidden = (message: string) => new ApiError(403, "permission_error", message);
