-- A departure is known when it happens: the delay in minutes counts from the scheduled time.
SELECT
    concat_ws('-', carrier, flight, origin, strftime(time_hour + to_minutes(minute), '%Y%m%dT%H%M')) AS flight_id,
    time_hour + to_minutes(minute + dep_delay) AS departed,
    carrier, origin, dest, tailnum, dep_delay
FROM flights
WHERE dep_delay IS NOT NULL
