"""A workflow as an Argo Workflow, for a Kubernetes cluster."""
