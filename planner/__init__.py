"""Plans LLM deployments: demand and supply in, the cheapest deployment that meets all of it out."""
