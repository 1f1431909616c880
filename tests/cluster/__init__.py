"""Every overlay of `k8s/` on a real API server with its scheduler and controllers: `make test-cluster`.

Each overlay is applied server-side with strict validation under the restricted Pod Security Standard, every pod is scheduled, and the
commands of docs/operations.md are taken out of the page and run. What must be refused is refused: a privileged pod, misspelt fields, a
change of a job, a second eviction. The control plane is built once from its Go module and kept in `.cache/cluster`.

There are no machines behind the nodes, so no image is pulled, and no container, probe, mount or network policy is exercised. Every
claim gets a volume object. KEDA and the Prometheus operator are there by their definitions only, made from the schemas in
`deploy/check/k8s/crds`.
"""
