"""CarRacing: steer a car over a new random track in every episode."""
