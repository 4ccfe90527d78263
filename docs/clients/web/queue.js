// What the page and the worker share: the writes that wait, who is signed in, and what an answer means.
"use strict";

// --- kept in IndexedDB -----------------------------------------------------------------------------------------------

function openDatabase() {
  return new Promise((resolve, reject) => {
    const asked = indexedDB.open("orders", 1);
    asked.onupgradeneeded = () => {
      asked.result.createObjectStore("writes", { keyPath: "number", autoIncrement: true });
      asked.result.createObjectStore("facts");
    };
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
}

async function inStore(name, mode, act) {
  const database = await openDatabase();
  try {
    return await new Promise((resolve, reject) => {
      // Strict: a write that the user was told is kept survives a power cut.
      const transaction = database.transaction(name, mode, { durability: "strict" });
      const asked = act(transaction.objectStore(name));
      transaction.oncomplete = () => resolve(asked.result);
      transaction.onabort = () => reject(transaction.error);
    });
  } finally {
    database.close();
  }
}

// A write: { number, key, user, body }, and `refused` with the reason once it was.
const writes = {
  all: () => inStore("writes", "readonly", (store) => store.getAll()),
  put: (write) => inStore("writes", "readwrite", (store) => store.put(write)),
  remove: (number) => inStore("writes", "readwrite", (store) => store.delete(number)),
};

// `user`: { id, name } of whoever is signed in, or null. `leaving`: signed out here, and the gateway has yet to hear it.
const facts = {
  get: (name) => inStore("facts", "readonly", (store) => store.get(name)),
  set: (name, value) => inStore("facts", "readwrite", (store) => store.put(value, name)),
};

// --- what an answer means --------------------------------------------------------------------------------------------

const SIGN_IN = ["token_missing", "token_invalid", "token_expired", "token_revoked", "session_ended"];
const OURS = "urn:gateway:error:";

// { is: "done", answer } · { is: "sign_in" } · { is: "later", after: seconds } · { is: "refused", why, code }
// `token_expired` reaches a page only when there was nothing left to refresh with: the gateway has tried.
async function send(path, options = {}) {
  let answer, text;
  try {
    answer = await fetch(path, { ...options, cache: "no-store", signal: AbortSignal.timeout(15_000) });
    if (answer.ok) return { is: "done", answer };
    text = await answer.text();
  } catch {
    return { is: "later" }; // offline, or cut off: it may have been done, and the key makes repeating safe
  }
  const problem = parse(text);
  const code = problem.type?.startsWith?.(OURS) ? problem.code : ""; // an upstream may answer 401 too
  if (SIGN_IN.includes(code)) return { is: "sign_in" };
  const isPassing = answer.status >= 500 || [408, 429].includes(answer.status) || code === "idempotency_key_in_use";
  if (isPassing) return { is: "later", after: Number(answer.headers.get("retry-after")) || undefined };
  return { is: "refused", code, why: problem.detail ?? problem.title ?? `The answer was ${answer.status}.` };
}

function parse(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

function json(members, headers = {}) {
  return { method: "POST", headers: { "content-type": "application/json", ...headers }, body: JSON.stringify(members) };
}

// --- who is signed in ------------------------------------------------------------------------------------------------

// Whatever uses the cookies or changes them holds this lock, in every tab and in the worker: no write may leave while
// another user signs in, and no late answer may bring back the cookies of the one before.
function alone(act) {
  return navigator.locks.request("session", act);
}

// Nobody, from the moment of signing out on.
async function currentUser() {
  return (await facts.get("leaving")) ? null : facts.get("user");
}

// Tell the gateway of a sign-out, also days later. 401 is an answer too: there is no session any more.
async function leave() {
  if (!(await facts.get("leaving"))) return { is: "done" };
  const said = await send("/auth/logout", { method: "POST" });
  if (said.is !== "done" && said.is !== "sign_in") return { is: "later", after: said.after };
  await facts.set("user", null);
  await facts.set("leaving", false);
  return { is: "done" };
}
