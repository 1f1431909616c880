// Requests to the console's API. An error carries the sentence that the API gave.

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function request(method, path, body) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new ApiError(0, "The console does not answer. Check that it runs, then try again.");
  }
  const given = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (!answer.ok) throw new ApiError(answer.status, sentence(given, answer.status));
  return given;
}

function sentence(given, status) {
  const detail = given?.detail;
  if (typeof detail === "string") return detail;
  if (Array.isArray(detail)) return detail.map((one) => `${one.loc?.at(-1)}: ${one.msg}`).join("; ");
  return `The console answered with status ${status}.`;
}

export const get = (path) => request("GET", path);
export const post = (path, body) => request("POST", path, body);
